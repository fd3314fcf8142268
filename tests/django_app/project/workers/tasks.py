import time

from django.tasks import task

from workers.models import Result


@task
def store(name, *, times=1):
    for _ in range(times):
        Result.objects.create(name=name)


@task(takes_context=True)
def store_at_second_attempt(context, name):
    if context.attempt == 1:
        raise ValueError("on purpose")
    Result.objects.create(name=name)


@task
async def wait(seconds):
    time.sleep(seconds)


@task
def add(one, other):
    return one + other
