"""A user's desk in, by one handler at a time; the newest out, and what came too late for it."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock

from medfuse_serving.page.desk import Desk
from medfuse_serving.telling import Shown


@dataclass(slots=True)
class Work:
    """What of one kind takes long; the next that is begun ends the one before.

    Attributes:
        begun: How many were.
        over: How many had been when the newest that is over was.
        stopped: How many had been when one was last stopped by hand.
    """

    begun: int = 0
    over: int = 0
    stopped: int = 0

    def begin(self) -> tuple[int, Callable[[], bool], Callable[[], bool]]:
        """Begin one.

        Returns:
            Its number; what tells whether it has to end, and whether another began: that may be
            shown by then, so that nothing may be taken away any more.
        """
        self.begun += 1
        number = self.begun

        def another() -> bool:
            return self.begun != number

        return number, lambda: another() or self.stopped >= number, another

    def finish(self, number: int) -> None:
        """Take down that one is over."""
        self.over = max(self.over, number)

    @property
    def goes_on(self) -> bool:
        """Whether one is under way."""
        return self.over < self.begun

    def stop(self) -> None:
        """End the one that is under way."""
        self.stopped = self.begun


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
        explaining: The explanations.
        writing: The dictations.
        exploring: What the missing parts might change.
        closed: Whether its page is, so that nothing more is kept.
        lock: Of the desk.
    """

    def __init__(self, desk: Desk | None = None, count: int = 0, heard: int = 0) -> None:
        self.desk = desk or Desk()
        self.count = count
        self.heard = heard
        self.typed = heard
        self.explaining, self.writing, self.exploring = Work(), Work(), Work()
        self.closed = False
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
        import gradio as gr

        desk = shown.get(place)
        if not isinstance(desk, Desk):
            return shown
        if self.closed:
            return {place: gr.skip()}
        if desk.mark != self.desk.mark:
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

    def close(self) -> None:
        """Let go of what was laid out, for good: something may be under way on it still."""
        self.closed, self.desk = True, Desk()

    def end(self) -> None:
        """End all that is under way, as nobody will see it."""
        self.count += 1
        for work in (self.explaining, self.writing, self.exploring):
            work.stop()
