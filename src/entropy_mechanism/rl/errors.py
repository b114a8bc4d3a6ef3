"""Errors that no further attempt would get past."""


class PermanentError(Exception):
    """Trying again as things are would fail the same way: a person has to look.

    What the training raises for such a reason is a subclass of this one. A ValueError counts alike: it says that
    an input is not what it should be.
    """


class DeviceError(OSError):
    """This machine lacks the devices that `compute` asks for; another one, or this one mended, may have them."""


class DivergenceError(PermanentError):
    """Too many updates had a loss or gradient that was not finite."""


class ParityError(PermanentError):
    """The rollout engine and the trainer disagree about the policy."""
