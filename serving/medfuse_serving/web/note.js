// The note's text box, and what is said of the note.
//
// Whatever changes what stands in the box is told, by a button that is never seen: Gradio tells of
// what is typed, and not of what is pasted, dropped, cut, deleted or undone. Told once is enough
// until something else is asked for. Each telling has a number, which is sent with a press on
// Predict, too: one that reaches the server after the press that followed it changes nothing.
//
// What the server sends may come in another order than it was sent. So the browser, where both the
// note and what is said of it stand, decides whether that may stay.

{
  const lines = (text) => (text ?? "").replace(/\r\n?/g, "\n");
  const is = ([text, form], note, laid) => text === lines(note) && form === laid;
  let asked = null; // the note of the last answer that was asked for, and its study
  let told = false;

  globalThis.medfuseNote = {
    changes: 0,

    /** Keep of which note an answer is asked for; give how often it was told that one changed. */
    ask(note, laid) {
      asked = [lines(note), laid];
      return String(this.changes);
    },

    /** Give what is said, where it is not of this note: nothing. Of it, or of none, it stays. */
    hold(note, laid, nothing) {
      return asked === null || is(asked, note, laid) ? [] : medfuseLanguage.choose(nothing);
    },

    /** Take a note that was left out of where it came; give it as it was read, if it is still this. */
    place(noted, note, laid) {
      if (!noted) return [];
      const [text, form, shown] = JSON.parse(noted);
      return is([lines(text), form], note, laid) ? ["", shown] : [""];
    },
  };

  const button = () => document.getElementById("note-changed");

  document.addEventListener("input", ({ target }) => {
    if (told || !target.closest("#note-text")) return;
    medfuseNote.changes += 1;
    button().click();
    told = true;
  });

  for (const asking of ["click", "focusout"]) {
    document.addEventListener(asking, ({ target }) => {
      if (target !== button()) told = false;
    }, { capture: true });
  }
}
