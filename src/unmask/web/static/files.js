const drop = element.querySelector(".drop");
const file = element.querySelector("input");
const refused = element.querySelector(".refused");
file.accept = props.suffixes.join(",");
// By kind, the files chosen so far: the browser holds them, and sends all together.
const held = new Map();

function url(chosen) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(chosen);
  });
}

function kindOf(name) {
  const suffix = props.suffixes.find((one) => name.toLowerCase().endsWith(one));
  return props.models.includes(suffix) ? "model" : suffix;
}

async function read(files) {
  refused.textContent = "";
  for (const chosen of files) {
    const kind = kindOf(chosen.name);
    const others = [...held].filter(([one]) => one !== kind).reduce((sum, [, one]) => sum + one.size, 0);
    if (!kind) {
      refused.textContent = `${chosen.name} is neither a model nor a zip of images.`;
    } else if (others + chosen.size > props.most) {
      refused.textContent = `The files are too large: ${((others + chosen.size) / 1e6).toFixed(1)} MB together; the limit is ${(props.most / 1e6).toFixed(1)} MB.`;
    } else {
      held.set(kind, { name: chosen.name, size: chosen.size, content: await url(chosen) });
    }
  }
  trigger("input", { files: [...held.values()].map(({ name, content }) => ({ name, content })) });
}

file.addEventListener("change", async () => {
  await read([...file.files]);
  file.value = "";
});
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  read([...event.dataTransfer.files]);
});
