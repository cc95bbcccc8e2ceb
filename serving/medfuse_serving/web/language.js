// The reader's language: kept in this browser, by a cookie, which the log-in shares. Gradio, whose
// own words follow the browser's, is told English before it starts, and `words.js` says them in the
// reader's.

globalThis.medfuseLanguage = {
  tags: { en: "en", zh: "zh-Hans" },

  /** Keep what was chosen. Values as the page's handler takes them: the language is the first. */
  keep(values) {
    this.use(values[0]);
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `medfuse-language=${values[0]}; Max-Age=31536000; Path=/; SameSite=Strict${secure}`;
    return values;
  },

  /** Give what is kept, for the switch. */
  restore() {
    const code = this.kept() ?? "en";
    this.use(code); // Gradio has written the browser's language there
    return code;
  },

  /** Give what is said in the page's language, of what is said in each. */
  choose(said) {
    return said[this.kept() ?? "en"];
  },

  kept() {
    const code = /(?:^|; )medfuse-language=(\w+)/.exec(document.cookie)?.[1];
    return code in this.tags ? code : null;
  },

  use(code) {
    document.documentElement.lang = this.tags[code];
    document.documentElement.dataset.language = code;
  },
};

{
  const code = medfuseLanguage.kept();
  if (code !== null) medfuseLanguage.use(code);
  Object.defineProperty(navigator, "language", { get: () => "en" });
  Object.defineProperty(navigator, "languages", { get: () => ["en"] });
}
