"""What a person is told when a command can't do what it was asked."""


class OperationError(Exception):
    """A command that can't go on; the message is one sentence that says what to do."""
