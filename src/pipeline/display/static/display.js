// What the page does by itself. Cards come from the server, as answers and as a stream, and one may overtake another:
// each has a version, and what is shown is only replaced by what has a higher one. Nothing is removed but a question
// that was answered.
"use strict";

const STATES = {
  pending: "is pending", late: "is not confirmed yet", confirmed: "is confirmed", failed: "was not fulfilled",
  unknown: "was not answered: we do not know yet whether it has arrived, and ask again",
};
const LOOK_AGAIN_MS = 15000;
const REST_MS = 500;
const orders = document.getElementById("orders");
const none = document.querySelector(".none");
const form = () => document.getElementById("ask");
let live = false;

const freshKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function merge(cards) {
  const fresh = [];
  for (const card of cards.reverse()) {
    const shown = document.getElementById(card.id);
    if (shown === null) orders.prepend(card);
    else if (Number(shown.dataset.version) < Number(card.dataset.version)) shown.replaceWith(card);
    else continue;
    fresh.push(card);
  }
  return fresh;
}

function say(cards) {
  const texts = cards.flatMap((card) =>
    Object.keys(STATES).filter((look) => card.classList.contains(look))
      .map((look) => `Your order of ${card.querySelector("h3").textContent} ${STATES[look]}.`));
  if (texts.length > 0) document.getElementById("said").textContent = texts.join(" ");
}

htmx.defineExtension("orders", {
  isInlineSwap: (style) => style === "merge",
  handleSwap(style, _target, fragment) {
    if (style !== "merge") return false;
    const fresh = merge([...fragment.querySelectorAll("[data-version]")]);
    say(fresh);
    return fresh;
  },
});

// From here on the form is for another order.
function startAnew(key) {
  if (form().elements.key.value !== key) return;
  form().elements.key.value = freshKey();
  for (const text of form().querySelectorAll(".amiss")) text.remove();
  for (const field of form().querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

// A double click, or Enter pressed twice, is one order, however fast the answer came between: nobody can have read it,
// nor a new price. A key that is held down presses once.
function rest() {
  const button = form().querySelector("button");
  button.setAttribute("aria-disabled", "true");
  setTimeout(() => button.removeAttribute("aria-disabled"), REST_MS);
}
document.addEventListener("submit", (event) => {
  if (event.target.id !== "ask" || form().querySelector("[aria-disabled=true]") === null) return;
  event.preventDefault();
  event.stopPropagation();
}, true);
document.addEventListener("keydown", (event) => {
  if (event.repeat && event.key === "Enter" && event.target.closest("#ask")) event.preventDefault();
});

document.body.addEventListener("answered", (event) => {
  const key = event.detail.value;
  document.getElementById(`ask-${key}`)?.remove();
  startAnew(key);
});

// A question is noted before it is asked: the page may be closed before there is an answer, which strikes it out.
document.body.addEventListener("htmx:beforeRequest", ({ detail: { requestConfig } }) => {
  if (requestConfig.verb !== "post") return;
  const { key, offer, quantity } = Object.fromEntries(requestConfig.formData);
  document.cookie = `ask-${key}=${new URLSearchParams({ offer, quantity })}; max-age=86400; path=/; samesite=lax`;
});

// The same as the server's answer that nobody knows, where there was none. It goes on asking by itself.
function nobodyKnows({ key, offer, quantity }) {
  if (document.getElementById(`ask-${key}`)) return;
  const card = document.getElementById("unknown").content.firstElementChild.cloneNode(true);
  const name = form().querySelector(`option[value="${CSS.escape(offer)}"]`)?.textContent.replace(/ \([^)]*\)$/, "");
  card.id = `ask-${key}`;
  card.querySelector("h3").textContent = `${quantity} × ${name ?? offer.split(" ").slice(2).join(" ")}`;
  for (const [field, value] of Object.entries({ key, offer, quantity })) card.querySelector(`[name=${field}]`).value = value;
  orders.prepend(card);
  htmx.process(card);
  say([card]);
}

// Only we say so of what we have answered; whoever else answers in our place (a proxy) knows nothing.
document.body.addEventListener("htmx:afterRequest", ({ detail: { requestConfig, xhr } }) => {
  if (requestConfig.verb !== "post") {
    if (xhr.status === 200) none.hidden = false;
    return;
  }
  if (xhr.getResponseHeader("HX-Trigger-After-Swap") === null) {
    const asked = Object.fromEntries(requestConfig.formData);
    nobodyKnows(asked);
    startAnew(asked.key);
  }
  if (requestConfig.elt.id === "ask") rest();
});

// The stream may be interrupted, and the server may have nothing to tell: that is said, and asked about meanwhile.
const link = document.getElementById("link");
function tell(state) {
  live = state === "live";
  link.textContent = link.dataset[state] ?? "";
  if (state !== "cut") none.hidden = !live;
}
document.body.addEventListener("htmx:sseOpen", (event) => event.detail.source.addEventListener("link", hear));
document.body.addEventListener("htmx:sseError", () => tell("cut"));
function hear(event) {
  tell(event.data);
}
const refetch = () => htmx.trigger(orders, "refetch");
document.addEventListener("visibilitychange", () => document.hidden || refetch());
addEventListener("online", refetch);
setInterval(() => live || refetch(), LOOK_AGAIN_MS);
