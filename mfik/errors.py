"""Exceptions of mfik: one root, one class a cause.

Every message names the argument (or file and element), what was expected, what was found, and the remedy.
"""


class MfikError(Exception):
    """Root of every error that mfik raises on purpose."""


class ArgumentError(MfikError, ValueError):
    """An argument has the wrong type, shape, dtype, device or value."""


class RobotError(MfikError, ValueError):
    """A robot description (URDF, chain, limits, link name) cannot be used."""


class DataError(MfikError, ValueError):
    """A training file is malformed, or was made for another robot."""


class BundleError(MfikError, ValueError):
    """A checkpoint or exported model is malformed, foreign, or made for another robot."""


class TrainingError(MfikError, RuntimeError):
    """A training run cannot go on: too many steps with a loss or gradient that is not finite."""


class WriteError(MfikError, OSError):
    """A file or folder cannot be written: the disk is full, the folder read-only, or a file in its place."""


class ClusterError(MfikError, RuntimeError):
    """A cluster of machines cannot do its part: workers are lost again and again, or have another release of mfik."""
