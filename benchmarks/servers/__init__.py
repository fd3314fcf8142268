"""The contestants, one small server each, by what is served."""
