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
  const noteOf = (laid) => laid.split(".").slice(0, 2).join(); // `Desk.laid`
  const STAYS = { __type__: "update" };
  let asked = null; // the note of the last answer that was asked for, and its study
  let asks = 0; // how often
  let told = false;
  const chosen = {}; // how often it had told of a change when a note's file was chosen, by its button

  globalThis.medfuseNote = {
    changes: 0,

    /** Keep of which note an answer is asked for; give how often it was told that one changed. */
    ask(note, laid) {
      asked = [lines(note), laid];
      asks += 1;
      return String(this.changes);
    },

    /** Give how often it had told of a change when the file that a button takes was chosen. */
    chosen(button) {
      return String(chosen[button] ?? this.changes);
    },

    /** Give the note's panel and what is said, each as it is to stand beside the note in the box.
     *
     * `nothing`: what stands where something is said while nothing is. `noted`: a note as it was
     * read, with its text and its study; shown, and taken out of there, if it is still this note. */
    settle(nothing, noted, note, laid, answer, ...said) {
      const [text, whose, panel] = noted ? JSON.parse(noted) : [];
      const isRead = noted && lines(text) === lines(note) && noteOf(whose) === noteOf(laid);
      const isOwn = asked === null || (asked[0] === lines(note) && asked[1] === laid);
      const isSaid = /class="mf-(answer|empty mf-read-first)/.test(answer) || said.some(Boolean);
      const kept = isOwn || !isSaid ? [answer, ...said].map(() => STAYS) : medfuseLanguage.choose(nothing);
      return [noted ? "" : STAYS, isRead ? panel : STAYS, ...kept];
    },

    /** Name the answer that is shown: as often as one was asked for, and the study. */
    mark(laid) {
      return `${asks} ${laid}`;
    },

    /** Take what a decision changes out of where it came; give it if the answer is still that one. */
    decide(decided, laid) {
      if (!decided) return [];
      const [whose, ...shown] = JSON.parse(decided);
      if (whose !== this.mark(laid)) return [""];
      return ["", ...shown.map((value) => value ?? { __type__: "update" })]; // null: it stays
    },
  };

  const button = () => document.getElementById("note-changed");

  document.addEventListener("input", ({ target }) => {
    if (told || !target.closest("#note-text")) return;
    medfuseNote.changes += 1;
    button().click();
    told = true;
  });

  document.addEventListener("change", ({ target }) => {
    if (target.type === "file") chosen[target.nextElementSibling?.id] = medfuseNote.changes;
  }, { capture: true });

  for (const asking of ["click", "focusout"]) {
    document.addEventListener(asking, ({ target }) => {
      if (target !== button()) told = false;
    }, { capture: true });
  }
}
