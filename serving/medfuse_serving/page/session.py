"""A user's desk in, by one handler at a time; the newest out, and what came too late for it."""

from collections.abc import Callable
from threading import RLock

from medfuse_serving.page.desk import Desk
from medfuse_serving.telling import Shown


class Session:
    """What one user has laid out, and what is under way on it.

    Gradio gives every handler of a user the same one, and gives a value that a handler gave back
    only to those that begin after it. So the desk is not such a value: who changes it takes the
    newest, holds the lock from there until another is put in its place, and what was given
    meanwhile is not lost.

    What takes long (an answer, an explanation, a dictation) is done without the lock, and put on
    the newest desk in the end, unless what it is of has changed. Gradio can cancel too, but what
    it had already sent is then shown after what took its place, and of two cancellations at once
    one fails and leaves it there.

    Attributes:
        desk: The newest.
        count: How often the study has changed, or an answer was asked for.
        heard: How often the browser had told of a change of the note when an answer was last asked
            for.
        typed: How often it has told of one, as far as is known.
        explained: How many explanations were begun; the next ends the one before.
        ended: How many of them had been begun when the newest that is over was.
        stopped: How many had been when one was last stopped by hand.
        lock: Of the desk.
    """

    def __init__(self, desk: Desk | None = None, count: int = 0, heard: int = 0) -> None:
        self.desk = desk or Desk()
        self.count = count
        self.heard = heard
        self.typed = heard
        self.explained = self.ended = self.stopped = 0
        self.lock = RLock()

    def __deepcopy__(self, _: object) -> "Session":
        """Make one for another user, as Gradio does of a state's first value."""
        return Session(self.desk)

    def put(self, place: object, shown: Shown) -> Shown:
        """Put the desk that a handler gives back in the place of the one before.

        Args:
            place: The state's component, under which the handler gives its desk, if any.
            shown: What it gives back.

        Returns:
            The same with this session for the desk, which thereby stays for another hour.
        """
        desk = shown.get(place)
        if not isinstance(desk, Desk):
            return shown
        if desk.laid != self.desk.laid:
            self.count += 1
        self.desk = desk
        return shown | {place: self}

    def since(self) -> Callable[[], bool]:
        """Give what tells whether the study has changed from now on."""
        now = self.count
        return lambda: self.count != now

    def since_note(self, told: int) -> Callable[[], bool]:
        """Give what tells whether it has another note by now, or is another study.

        Args:
            told: How often the browser had told of a change of the note when another was chosen to
                take its place.
        """
        form, noted = self.desk.form, self.desk.noted
        return lambda: self.typed > told or (self.desk.form, self.desk.noted) != (form, noted)

    def hear(self, told: int) -> None:
        """Take down how often the browser has told of a change of the note."""
        self.typed = max(self.typed, told)

    def explain(self) -> tuple[int, Callable[[], bool], Callable[[], bool]]:
        """Begin an explanation.

        Returns:
            Its number; what tells whether it has to end, and whether another began: that may be
            shown by then, so that nothing may be taken away any more.
        """
        self.explained += 1
        number, changed = self.explained, self.since()

        def another() -> bool:
            return self.explained != number

        return number, lambda: changed() or another() or self.stopped >= number, another

    @property
    def explains(self) -> bool:
        """Whether an explanation is under way."""
        return self.ended < self.explained

    def stop(self) -> None:
        """End the explanation that is under way."""
        self.stopped = self.explained
