// What is shown was asked for a moment ago, or it is said how long ago that was: nothing looks healthy because it was
// healthy once. And a button that is not answered as it should be says so.
"use strict";

const OLD_S = 10; // without an answer, and without a failure
const heard = { hops: Date.now(), parked: Date.now() };
const failed = new Set();
const old = document.getElementById("old");

// The sentence is announced once; its number changes in silence.
function tell() {
  const silence_s = Math.floor((Date.now() - Math.min(...Object.values(heard))) / 1000);
  const is_old = failed.size > 0 || silence_s >= OLD_S;
  document.body.classList.toggle("old", is_old);
  if (!is_old) {
    old.replaceChildren();
    return;
  }
  if (old.childElementCount === 0) {
    const number = document.createElement("span");
    number.ariaLive = "off";
    old.replaceChildren("Nothing heard for ", number, " s: what you see is old.");
  }
  old.firstElementChild.textContent = silence_s;
}
setInterval(tell, 1000);

document.body.addEventListener("htmx:afterSwap", (event) => {
  const { id } = event.detail.target;
  if (!(id in heard)) return;
  heard[id] = Date.now();
  failed.delete(id);
  tell();
});

for (const failure of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.body.addEventListener(failure, (event) => {
    const { requestConfig, target, xhr } = event.detail;
    if (requestConfig.verb === "get") {
      failed.add(target.id);
      tell();
      return;
    }
    const title = document.createElement("h3");
    title.className = "amiss";
    title.textContent = (xhr?.status ? `The answer was an error (${xhr.status}).` : "There was no answer.")
      + " Whether anything was done is not known: see once more what would be. To press twice is harmless.";
    document.getElementById("replayed").replaceChildren(title);
  });
}

// What the tool says is shown, failures too; an answer that is not from it is no page.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  const { requestConfig, xhr } = event.detail;
  if (requestConfig.verb !== "post" || !(xhr.getResponseHeader("Content-Type") ?? "").startsWith("text/html")) return;
  event.detail.shouldSwap = true;
  event.detail.isError = false;
});
