// Runs the model beside the page, which stays responsive.

import * as ort from "./built/ort.wasm.min.mjs";

ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
const loading = ort.InferenceSession.create("built/nuclei.onnx");
loading.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ failed: `The model cannot be loaded: ${error.message}` }),
);

onmessage = async ({ data: { number, rgba, width, height, diameter } }) => {
  try {
    const session = await loading;
    const begin = performance.now();
    const rgb = new Uint8Array(width * height * 3);
    for (let pixel = 0, at = 0; at < rgb.length; pixel += 4) {
      rgb[at++] = rgba[pixel];
      rgb[at++] = rgba[pixel + 1];
      rgb[at++] = rgba[pixel + 2];
    }
    const found = await session.run({
      image: new ort.Tensor("uint8", rgb, [1, height, width, 3]),
      given_diameter: new ort.Tensor("float32", [diameter], [1]),
    });
    const labels = found.labels.data.slice();
    const result = {
      number,
      labels,
      width,
      height,
      count: found.num_instances.data[0],
      diameter: found.diameter.data[0],
      scores: found.scores.data.slice(),
      seconds: (performance.now() - begin) / 1000,
    };
    for (const tensor of Object.values(found)) tensor.dispose();
    postMessage(result, [labels.buffer]);
  } catch (error) {
    postMessage({ number, failed: `The image cannot be segmented: ${error.message}` });
  }
};
