"use strict";
// Values under the pointer. Everything else on the page works without this.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");

  for (const [name, marks] of Object.entries(data.figures)) {
    const svg = document.querySelector(`#figure-${name} svg`);
    if (!svg) continue;
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "here");
    ring.setAttribute("r", 0);
    svg.append(ring);
    const hide = () => {
      tip.hidden = true;
      ring.setAttribute("r", 0);
    };
    const show = (event) => {
      const pointer = new DOMPoint(event.clientX, event.clientY);
      const at = pointer.matrixTransform(svg.getScreenCTM().inverse());
      let found = null, least = Infinity;
      for (const mark of marks) {  // x, y, how far it reaches in both directions, text
        const [dx, dy] = [Math.abs(mark[0] - at.x), Math.abs(mark[1] - at.y)];
        const distance = Math.hypot(dx, dy);
        if (dx <= mark[2] && dy <= mark[3] && distance < least) [found, least] = [mark, distance];
      }
      if (!found) return hide();
      ring.setAttribute("cx", found[0]);
      ring.setAttribute("cy", found[1]);
      ring.setAttribute("r", 5);
      tip.textContent = found[4];
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      const below = event.clientY + 16 + tip.offsetHeight < innerHeight;
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12}px`;
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  }
})();
