element.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-example]");
  if (chosen) trigger("input", { example: Number(chosen.dataset.example) });
});
