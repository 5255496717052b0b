// Elements of HTML and SVG for the scripts of these pages.
window.minidatElements = (() => {
  "use strict";

  /** An element: html("p.note", {title: "..."}, child or text, ...). */
  function html(tag, attributes = {}, ...children) {
    const [name, ...classes] = tag.split(".");
    const element = document.createElement(name);
    element.classList.add(...classes);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function svg(name, attributes = {}, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    set(element, attributes);
    element.append(...children);
    return element;
  }

  /** Set attributes; numbers with three digits after the point. */
  function set(element, attributes) {
    for (const [key, value] of Object.entries(attributes)) {
      element.setAttribute(key, typeof value === "number" ? +value.toFixed(3) : value);
    }
  }

  return { html, svg, set };
})();
