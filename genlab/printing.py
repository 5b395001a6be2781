"""Escaping of untrusted text for a terminal and a log."""


def printable(text: str) -> str:
    """Return the text on one line, with unprintable characters escaped, since they could move the cursor."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def one_line(text: str) -> str:
    """Return the printable text with every run of white space made one space."""
    return printable(" ".join(text.split()))
