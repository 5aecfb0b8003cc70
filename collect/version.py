"""The version, in the one place where it stands, and how the tool names itself on the wire."""

VERSION = "0.1.0"


def user_agent(contact: str) -> str:
    """Who asks: the tool, its version, and whom to write to.

    >>> user_agent("mailto:someone@example.org")
    'boxwright/0.1.0 (+mailto:someone@example.org)'
    """
    return f"boxwright/{VERSION} (+{contact})" if contact else f"boxwright/{VERSION}"
