"""The errors that a user can cause and correct.

Each message names the file or the key at fault and the remedy. Whoever catches
``UserError`` may print it without a traceback: the text is meant to suffice.
"""


class UserError(Exception):
    """Base of all errors that a user can correct without reading our code."""


class ConfigError(UserError):
    """A key, a value or a combination of values in a YAML or command line."""


class ManifestError(UserError):
    """A manifest that is missing, malformed or empty."""


class AudioError(UserError):
    """A single audio file that cannot be used, with the reason."""


class EmbeddingError(UserError):
    """Embeddings that cannot be used: no table, not finite, or all zero."""


class TrialError(UserError):
    """A trial list that is malformed or names what is not there."""


class CheckpointError(UserError):
    """A checkpoint that is of another configuration, or cannot be written."""


class CollapseError(UserError):
    """Training has collapsed: the representation carries nothing any more."""
