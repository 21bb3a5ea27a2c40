export const get = (id) => document.getElementById(id);

// A copy of the one element in a template.
export const made = (template) => get(template).content.firstElementChild.cloneNode(true);

// Hide what may have the focus: the focus moves to the field to write in then.
export function hide(element) {
  const hadFocus = element.contains(document.activeElement);
  element.hidden = true;
  if (hadFocus) get("text").focus();
}
