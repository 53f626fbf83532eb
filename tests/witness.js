// Tells of every card that a customer sees, from the first byte of a page on: shown, replaced, gone; and of each press of
// the form's button, a double click being one.
(() => {
  const page = `${performance.timeOrigin}-${Math.random()}`;
  const told = (what, node) => {
    const [kind, id] = [node.id.slice(0, node.id.indexOf("-")), node.id.slice(node.id.indexOf("-") + 1)];
    if (kind !== "order" && kind !== "ask") return;
    window.witness({ what, page, kind, id, look: node.classList[1], version: Number(node.dataset.version), at: Date.now() / 1000 });
  };
  const cards = (node) => (node.nodeType !== Node.ELEMENT_NODE ? []
    : node.matches("#orders > [data-version]") ? [node] : [...node.querySelectorAll("#orders > [data-version]")]);
  const gone = (node) => (node.nodeType === Node.ELEMENT_NODE && node.dataset.version !== undefined ? [node] : []);
  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.removedNodes) for (const card of gone(node)) {
        if (!document.getElementById(card.id)) told("gone", card);
      }
      for (const node of change.addedNodes) for (const card of cards(node)) told("shown", card);
    }
  }).observe(document, { childList: true, subtree: true });
  document.addEventListener("click", (event) => {
    if (event.detail < 2 && event.target.closest("#ask button")) window.witness({ what: "pressed", at: Date.now() / 1000 });
  }, true);
  document.addEventListener("DOMContentLoaded", () => {
    const ids = [...document.querySelectorAll("#orders > [data-version]")].map((card) => card.id);
    window.witness({ what: "loaded", ids, at: Date.now() / 1000 });
  });
})();
