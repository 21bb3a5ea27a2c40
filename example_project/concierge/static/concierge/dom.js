export const get = (id) => document.getElementById(id);

// A copy of the one element in a template.
export const made = (template) => get(template).content.firstElementChild.cloneNode(true);

// Hide what may have the focus: whoever was there goes on at the field to write in.
export function hide(element) {
  const hadFocus = element.contains(document.activeElement);
  element.hidden = true;
  if (hadFocus) get("text").focus();
}
