const drop = element.querySelector(".drop");
const file = element.querySelector("input");
const refused = element.querySelector(".refused");
const camera = element.querySelector(".camera");
const video = element.querySelector("video");
const open = element.querySelector(".open");
const take = element.querySelector(".take");
let stream = null;

function send(picture) {
  refused.textContent = "";
  trigger("input", { picture });
}

function read(chosen) {
  if (!chosen) return;
  if (!chosen.type.startsWith("image/")) {
    refused.textContent = "That is no image.";
  } else if (chosen.size > props.most) {
    refused.textContent = `The picture is too large: ${(chosen.size / 1e6).toFixed(0)} MB; the limit is ${(props.most / 1e6).toFixed(0)} MB.`;
  } else {
    const reader = new FileReader();
    reader.onload = () => send(reader.result);
    reader.readAsDataURL(chosen);
  }
}

file.addEventListener("change", () => {
  read(file.files[0]);
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
  read(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const hidden = element.offsetParent === null;
  const typing = ["INPUT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "file";
  const pasted = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (!hidden && !typing && pasted) read(pasted);
});

function shut() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  video.hidden = take.hidden = true;
  open.hidden = false;
}

camera.hidden = !props.webcam;
open.addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch (error) {
    refused.textContent = "The camera can't be used: there is none, or it was not allowed.";
    return;
  }
  refused.textContent = "";
  video.srcObject = stream;
  await video.play();
  video.hidden = take.hidden = false;
  open.hidden = true;
});
take.addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  shut();
  send(canvas.toDataURL("image/jpeg", 0.92));
});
