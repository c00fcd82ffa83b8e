"""What an edge tells its role when the world disappoints it: three reactions, and one verdict on an input.

CollectorError
+- RetryLater   the source will probably answer again
+- Gone         an expected end: the device was removed, the recording is over
+- Broken       somebody must look: permission lost, a counter that lies
Rejected        one input that is not used; its neighbours are
"""


class CollectorError(Exception):
    """Names what happened, where, and what to do."""


class RetryLater(CollectorError):
    """The source did not answer this time; the role asks again at the next deadline."""


class Gone(CollectorError):
    """The source has ended, as it may."""


class Broken(CollectorError):
    """The source cannot work until a person acts; the role shows it and goes on without it."""


class Rejected(ValueError):
    """One bad input: counted under `reason` (a short snake_case word), kept with `detail`, and passed by.

    `detail` names the field and the value's shape. It never carries a prompt or a body.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
