"""The examples, each started by the command that its page shows."""
