"""The only room that knows the others: jobs, the local stack, the commands."""
