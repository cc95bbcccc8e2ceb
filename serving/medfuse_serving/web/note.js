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
  const studyOf = (laid) => laid.split(".").slice(0, 3).join();
  const MOST = 5; // how often it is caught up in a row
  const AFTER_MS = 200; // and how soon
  const newest = [0, 0]; // of the study, and of the prior beside it, which number was shown
  let caught = 0;

  /** Have all shown again if what came last is older than what was shown, or in another language. */
  const catchUp = (laid) => {
    const [, , study, prior, language] = laid.split(".");
    const numbers = [study, prior].map(Number);
    const isOld = numbers.some((number, i) => number < newest[i]);
    if (!isOld && language === document.documentElement.dataset.language) {
      numbers.forEach((number, i) => { newest[i] = number; });
      caught = 0;
    } else if (caught < MOST) {
      caught += 1;
      setTimeout(() => document.getElementById("catch-up")?.click(), AFTER_MS);
    }
  };

  const STAYS = { __type__: "update" };
  let asked = null; // the note of the last answer that was asked for, and its study
  let asks = 0; // how often
  let told = false;
  globalThis.medfuseNote = {
    changes: 0,

    /** Keep of which note an answer is asked for; give how often it was told that one changed. */
    ask(note, laid) {
      asked = [lines(note), studyOf(laid)];
      asks += 1;
      return String(this.changes);
    },

    /** Give the note's panel and what is said, each as it is to stand beside the note in the box.
     *
     * `nothing`: what stands where something is said while nothing is. `noted`: a note as it was
     * read, with its text and its study; shown, and taken out of there, if it is still this note. */
    settle(nothing, noted, note, laid, answer, ...said) {
      const [text, whose, panel] = noted ? JSON.parse(noted) : [];
      const isRead = noted && lines(text) === lines(note) && noteOf(whose) === noteOf(laid);
      const isOwn = asked === null || (asked[0] === lines(note) && asked[1] === studyOf(laid));
      const isSaid = /class="mf-(answer|empty mf-read-first)/.test(answer) || said.some(Boolean);
      const kept = isOwn || !isSaid ? [answer, ...said].map(() => STAYS) : medfuseLanguage.choose(nothing);
      catchUp(laid);
      return [noted ? "" : STAYS, isRead ? panel : STAYS, ...kept];
    },

    /** Name the answer that is shown: as often as one was asked for, the study, and the language. */
    mark(laid) {
      return `${asks} ${studyOf(laid)} ${laid.split(".").at(-1)}`;
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

  for (const asking of ["click", "focusout"]) {
    document.addEventListener(asking, ({ target }) => {
      if (target !== button()) told = false;
    }, { capture: true });
  }
}
