"""The page's components in, what to call them in the reader's language out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from medfuse_serving.language import ENGLISH, Language
from medfuse_serving.telling import Shown

if TYPE_CHECKING:
    from gradio.blocks import Block

Choices = list[tuple[str, str]]
Labelled = TypeVar("Labelled", bound="Block")


@dataclass(frozen=True, slots=True)
class Label:
    """What is said on one component.

    Attributes:
        component: Whose.
        text: On it or over it: a message, or what makes it.
        choices: To choose from, each with its value; None of what is no choice.
        placeholder: In an empty text box, a message.
    """

    component: "Block"
    text: str | Callable[[Language], str]
    choices: Callable[[Language], Choices] | None = None
    placeholder: str = ""

    def say(self, language: Language) -> dict[str, Any]:
        """Give the component's properties that hold words."""
        import gradio as gr

        name = "value" if type(self.component) is gr.Button else "label"
        text = self.text(language) if callable(self.text) else language.text(self.text)
        said: dict[str, Any] = {name: text}
        if self.choices is not None:
            said["choices"] = self.choices(language)
        if self.placeholder:
            said["placeholder"] = language.text(self.placeholder)
        return said


@dataclass(frozen=True, slots=True)
class Labels:
    """All that is said on a page's components; what is said within their HTML is made elsewhere."""

    labels: list[Label] = field(default_factory=list)

    def put(
        self,
        component: Labelled,
        text: str | Callable[[Language], str],
        choices: Callable[[Language], Choices] | None = None,
        placeholder: str = "",
    ) -> Labelled:
        """Write on a component, in English to begin with."""
        label = Label(component, text, choices, placeholder)
        for name, said in label.say(ENGLISH).items():
            setattr(component, name, said)
        self.labels.append(label)
        return component

    @property
    def components(self) -> "list[Block]":
        """What is written on."""
        return [label.component for label in self.labels]

    def say(self, language: Language) -> Shown:
        """Write on all of them in a language."""
        import gradio as gr

        return {label.component: gr.update(**label.say(language)) for label in self.labels}
