// Keeps the open page up to date: the server draws, this puts each piece in its place.
"use strict";

(() => {
  const address = document.body.dataset.live;
  const status = document.getElementById("live");
  const rows = document.getElementById("rows");
  const empty = document.getElementById("empty");

  function say(text, kind) {
    if (status.textContent !== text) status.textContent = text;
    status.className = kind;
  }

  // Whoever is on a link by keyboard stays on it when its surroundings are drawn again.
  function keepingFocus(change) {
    const focused = document.activeElement;
    const href = focused && focused.getAttribute("href");
    const home = focused && focused.closest("[id]");
    const id = home && home.id;
    change();
    if (!href || !id || document.contains(focused)) return;
    const again = document.getElementById(id);
    const links = again ? again.querySelectorAll("a[href]") : [];
    for (const link of links) {
      if (link.getAttribute("href") === href) link.focus({ preventScroll: true });
    }
  }

  function elementOf(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.firstElementChild;
  }

  function apply(change, isFirst) {
    for (const [id, html] of Object.entries(change.regions)) {
      document.getElementById(id).innerHTML = html;
    }
    for (const [id, html] of Object.entries(change.rows)) {
      const old = document.getElementById(id);
      const drawn = elementOf(html);
      if (!isFirst) drawn.classList.add("fresh");
      if (old) old.replaceWith(drawn);
      else rows.append(drawn);
    }
    const wanted = new Set(change.order);
    for (const row of [...rows.children]) if (!wanted.has(row.id)) row.remove();
    // Only rows that are out of place move: moving one would take the focus from it.
    let place = rows.firstElementChild;
    for (const id of change.order) {
      const row = document.getElementById(id);
      if (row === place) place = place.nextElementSibling;
      else rows.insertBefore(row, place);
    }
    empty.hidden = change.order.length > 0;
  }

  let isFirst = true;
  const source = new EventSource(address);
  source.addEventListener("open", () => {
    isFirst = true;
    say("live", "live");
  });
  source.addEventListener("error", () => say("connecting again", "lost"));
  source.addEventListener("away", () => say("the database cannot be reached", "lost"));
  source.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    say("live", "live");
    keepingFocus(() => apply(change, isFirst));
    isFirst = false;
  });
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload();
  });
})();
