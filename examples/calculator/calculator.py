"""A calculator that C programs call: the program of calculator.x, over TCP and UDP."""

from pathlib import Path

from sockserve import sunrpc

x = sunrpc.load(Path(__file__).with_name("calculator.x"))

#: As many as an answer to a datagram has room for.
MOST_REMEMBERED = 100


class Calculator(sunrpc.RPCRequestHandler):
    program = x.CALCULATOR

    remembered = []

    async def calculate(self, task):
        outcome = self.outcome_of(task)
        self.remembered.append((task, outcome))
        del self.remembered[:-MOST_REMEMBERED]
        return outcome

    def outcome_of(self, task):
        if task.what == x.DIVIDE and task.right == 0:
            return x.outcome(x.DIVISION_BY_ZERO, "a division by zero")
        value = {
            x.ADD: lambda a, b: a + b,
            x.SUBTRACT: lambda a, b: a - b,
            x.MULTIPLY: lambda a, b: a * b,
            x.DIVIDE: lambda a, b: a // b,
        }[task.what](task.left, task.right)
        if not -(2**31) <= value < 2**31:
            return x.outcome(x.OVERFLOW, f"{value} has no place in an int")
        return x.outcome(x.OK, value)

    async def summarize(self, numbers):
        ends = [min(numbers), max(numbers)] if numbers else [0.0, 0.0]
        return x.summary(len(numbers), sum(numbers), ends, numbers == sorted(numbers))

    async def show(self, outcome):
        return f"{outcome.discriminant.name}: {outcome.value}"

    async def remember(self):
        first = None
        for task, outcome in reversed(self.remembered):
            first = x.entry(task, outcome, first)
        return first

    async def power(self, base, exponent):
        if exponent > 62:
            raise ValueError(f"an exponent of {exponent}")
        return base**exponent
