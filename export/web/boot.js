// What has to be said where modules do not load. A classic script: it runs from file://, too.

"use strict";

function fail(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.className = "failure";
  document.getElementById("progress").hidden = true;
}

addEventListener("DOMContentLoaded", () => {
  if (location.protocol === "file:") {
    fail(
      "Browsers do not load models from file://. Open a terminal in this folder, run " +
        "“python -m http.server” and open http://localhost:8000.",
    );
  }
});

addEventListener(
  "error",
  (event) => {
    if (event.target instanceof HTMLScriptElement && location.protocol !== "file:") {
      const text = "A script of this page did not load. Copy the whole folder again, or try a newer browser.";
      const say = () => fail(text);
      if (document.readyState === "loading") addEventListener("DOMContentLoaded", say);
      else say();
    }
  },
  true, // such errors do not bubble
);
