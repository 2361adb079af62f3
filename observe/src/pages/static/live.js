// Follows the stream of updates of each part of a page that names one. The server renders and escapes; here the new markup is laid
// over the old, so that focus, open details and moving traffic stay as they are.
"use strict";

const state = document.getElementById("live-state");

function show(name, text) {
  if (!state) return;
  state.hidden = false;
  state.dataset.state = name;
  if (state.textContent !== text) state.textContent = text;
}

function follow(part) {
  let source = null;
  const open = () => {
    source = new EventSource(part.dataset.live);
    source.addEventListener("part", (event) => {
      const next = document.createElement("template");
      next.innerHTML = event.data;
      children(part, next.content);
      show("live", state?.dataset.on);
    });
    source.addEventListener("trouble", (event) => show("trouble", event.data));
    source.addEventListener("error", () => show("lost", state?.dataset.lost));
  };
  // A page that nobody looks at asks for nothing.
  document.addEventListener("visibilitychange", () => {
    source?.close();
    if (!document.hidden) open();
  });
  open();
}

// Makes the children of `old` those of `fresh`. Elements with the same `data-key` are the same thing; so are neighbours of one kind.
function children(old, fresh) {
  const keyed = new Map([...old.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const key = next.dataset?.key;
    const found = key ? keyed.get(key) : at && at.nodeName === next.nodeName && !at.dataset?.key ? at : null;
    if (!found || found.nodeName !== next.nodeName) {
      old.insertBefore(next, at);
      continue;
    }
    if (found === at) at = at.nextSibling;
    else old.insertBefore(found, at);
    update(found, next);
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

function update(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Whether details are open is the reader's choice.
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  children(old, next);
}

document.querySelectorAll("[data-live]").forEach(follow);
// A choice in a form takes effect at once.
for (const form of document.querySelectorAll("form[data-auto]")) {
  form.addEventListener("change", (event) => event.target.matches("select, input[type=checkbox]") && form.requestSubmit());
}
// Enter runs a query, as in Prometheus; with Shift it begins a new line. What an input method still composes is not sent.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || !event.target.matches?.("textarea[name=query]")) return;
  event.preventDefault();
  event.target.form.requestSubmit();
});
