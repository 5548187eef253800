"""What is raised where pytorch-metric-learning asserts."""


class WrongArgumentError(ValueError, AssertionError):
    """Bad input that the peer answers with an AssertionError: code that catches it still works."""
