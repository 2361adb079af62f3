// Replaces each part of a page that names a stream of updates. The server renders and escapes; nothing is computed here.
for (const part of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(part.dataset.live);
  const note = document.getElementById("live-note");
  source.addEventListener("part", (event) => {
    if (!part.contains(document.activeElement) || document.activeElement === document.body) {
      part.innerHTML = event.data;
    }
    if (note) note.hidden = true;
  });
  source.addEventListener("trouble", (event) => {
    if (note) {
      note.textContent = event.data;
      note.hidden = false;
    }
  });
  source.addEventListener("error", () => {
    if (note) {
      note.textContent = note.dataset.lost;
      note.hidden = false;
    }
  });
}
