const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });
let last = null;

function wipe() {
  pen.fillStyle = "black";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function at(event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * canvas.width) / box.width,
    ((event.clientY - box.top) * canvas.height) / box.height,
  ];
}

function line(from, to) {
  pen.strokeStyle = "white";
  pen.lineWidth = 22;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = at(event);
  line(last, last);
});
canvas.addEventListener("pointermove", (event) => {
  if (!last) return;
  const here = at(event);
  line(last, here);
  last = here;
});
canvas.addEventListener("pointerup", () => {
  last = null;
  trigger("input", { picture: canvas.toDataURL("image/png") });
});
element.querySelector(".clear").addEventListener("click", wipe);
wipe();
