"use strict";
// Values under the pointer. Everything else on the page works without this.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const REACH = 16; // in the units of a figure, points

  function nearest(points, at) {
    let best = null, least = REACH * REACH;
    for (const point of points) {
      const distance = (point[0] - at.x) ** 2 + (point[1] - at.y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best && { x: best[0], y: best[1], text: best[2] };
  }

  function cell(grids, at) {
    for (const grid of grids) {
      const [x, y, width, height] = grid.box;
      const rows = grid.values.length, columns = grid.values[0].length;
      const column = Math.floor((at.x - x) / width * columns);
      const row = Math.floor((at.y - y) / height * rows);
      const value = row >= 0 && column >= 0 && row < rows && column < columns
        ? grid.values[row][column] : null;
      if (value === null) continue;
      const names = { row: grid.rows[row], column: grid.columns[column], value };
      return {
        x: x + (column + 0.5) * width / columns, y: y + (row + 0.5) * height / rows,
        text: grid.text.replace(/\{(row|column|value)\}/g, (_, name) => names[name]),
      };
    }
    return null;
  }

  function hide(mark) {
    tip.hidden = true;
    mark.setAttribute("r", 0);
  }

  for (const [id, marks] of Object.entries(data.figures)) {
    const svg = document.querySelector(`#${id} svg`);
    if (!svg) continue;
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    mark.setAttribute("class", "here");
    mark.setAttribute("r", 0);
    svg.append(mark);
    const show = (event) => {
      const pointer = new DOMPoint(event.clientX, event.clientY);
      const at = pointer.matrixTransform(svg.getScreenCTM().inverse());
      const found = cell(marks.grids, at) || nearest(marks.points, at);
      if (!found) return hide(mark);
      mark.setAttribute("cx", found.x);
      mark.setAttribute("cy", found.y);
      mark.setAttribute("r", 5);
      tip.textContent = found.text;
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      const below = event.clientY + 16 + tip.offsetHeight < innerHeight;
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12}px`;
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", () => hide(mark));
  }
})();
