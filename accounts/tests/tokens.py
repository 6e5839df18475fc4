"""A token of an operator, for the tests of everything that the management API offers."""

from accounts.tokens import issue_token


def token_of(account, **fields):
    return issue_token(account, **{"name": "tests", "by": "test", **fields})[1]
