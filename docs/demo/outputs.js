// What is written of a result: a table, outlines, and a PNG of labels.

/** Area, center and box of each instance; index 0 is the background. */
export function measure({ labels, width, count }) {
  const rows = Array.from({ length: count + 1 }, () => ({
    area: 0, row: 0, column: 0, top: Infinity, left: Infinity, bottom: 0, right: 0,
  }));
  for (let at = 0; at < labels.length; at++) {
    const one = rows[labels[at]];
    const row = Math.floor(at / width);
    const column = at % width;
    one.area++;
    one.row += row;
    one.column += column;
    one.top = Math.min(one.top, row);
    one.left = Math.min(one.left, column);
    one.bottom = Math.max(one.bottom, row + 1);
    one.right = Math.max(one.right, column + 1);
  }
  for (const one of rows) {
    one.row /= one.area;
    one.column /= one.area;
  }
  return rows;
}

/** A row for each instance, with the columns of `keras-rpe segment`. */
export function table(result) {
  const lines = ["instance,score,area_px,centroid_row,centroid_column,top,left,bottom,right"];
  measure(result).forEach((one, number) => {
    if (number === 0) return;
    const score = number <= result.scores.length ? result.scores[number - 1].toFixed(4) : "";
    const center = [one.row.toFixed(2), one.column.toFixed(2)];
    const box = [one.top, one.left, one.bottom, one.right];
    lines.push([number, score, one.area, ...center, ...box].join(","));
  });
  return `${lines.join("\n")}\n`;
}

/** Outlines along the edges of pixels, x before y, as QuPath reads them. */
export function geojson(result) {
  const rows = measure(result);
  const features = [];
  for (let number = 1; number <= result.count; number++) {
    const parts = polygons(result, number, rows[number]);
    const measurements = [{ name: "Area px^2", value: rows[number].area }];
    if (number <= result.scores.length) {
      measurements.unshift({ name: "Score", value: Number(result.scores[number - 1].toFixed(4)) });
    }
    features.push({
      type: "Feature",
      geometry:
        parts.length === 1
          ? { type: "Polygon", coordinates: parts[0] }
          : { type: "MultiPolygon", coordinates: parts },
      properties: {
        objectType: "detection",
        classification: { name: "Nucleus" },
        measurements,
      },
    });
  }
  return JSON.stringify({ type: "FeatureCollection", features });
}

// Directions, clockwise where y points down: right, down, left, up.
const STEPS = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/** The parts of an instance, each a list of rings, of which the first is the outer one. */
function polygons({ labels, width, height }, number, box) {
  const inside = (x, y) =>
    x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] === number;
  // Edges of pixels with the instance on their right, by their start and direction.
  const edges = new Map();
  const add = (x, y, direction) => {
    const key = y * (width + 1) + x;
    edges.set(key, (edges.get(key) ?? 0) | (1 << direction));
  };
  for (let y = box.top; y < box.bottom; y++) {
    for (let x = box.left; x < box.right; x++) {
      if (!inside(x, y)) continue;
      if (!inside(x, y - 1)) add(x, y, 0);
      if (!inside(x + 1, y)) add(x + 1, y, 1);
      if (!inside(x, y + 1)) add(x + 1, y + 1, 2);
      if (!inside(x - 1, y)) add(x, y + 1, 3);
    }
  }
  const outer = [];
  const holes = [];
  for (const key of [...edges.keys()].sort((a, b) => a - b)) {
    while (edges.get(key)) {
      for (const ring of simple(follow(edges, key, width + 1))) {
        (signedArea(ring) > 0 ? outer : holes).push(ring);
      }
    }
  }
  const parts = outer.map((ring) => [ring]);
  for (const hole of holes) {
    // The pixel beside the first edge of a hole is of the part around it.
    const place = besideHole(hole);
    (parts.find(([ring]) => contains(ring, place)) ?? parts[0]).push(hole);
  }
  return parts;
}

/** Take a ring out of the edges, with its corners only. */
function follow(edges, start, stride) {
  let direction = 31 - Math.clz32(edges.get(start) & -edges.get(start));
  const first = direction;
  let x = start % stride;
  let y = Math.floor(start / stride);
  const ring = [[x, y]];
  for (;;) {
    const key = y * stride + x;
    edges.set(key, edges.get(key) & ~(1 << direction));
    x += STEPS[direction][0];
    y += STEPS[direction][1];
    const here = y * stride + x;
    const left = edges.get(here) ?? 0;
    if (here === start && !left) break;
    // Where pixels touch at a corner only, turning right keeps them apart.
    const next = [1, 0, 3].map((turn) => (direction + turn) % 4).find((d) => left & (1 << d));
    if (here === start && (next === undefined || next === first)) break;
    if (next === undefined) break;
    if (next !== direction) ring.push([x, y]);
    direction = next;
  }
  if (direction === first && ring.length > 1) ring.shift();
  ring.push(ring[0]);
  return ring;
}

/** A ring that touches itself at corners as several that do not. */
function simple(ring) {
  const rings = [];
  const path = [];
  for (const corner of ring) {
    const at = path.findIndex(([x, y]) => x === corner[0] && y === corner[1]);
    if (at >= 0) rings.push([...path.splice(at), corner]);
    path.push(corner);
  }
  return rings;
}

function signedArea(ring) {
  let sum = 0;
  for (let k = 0; k + 1 < ring.length; k++) {
    sum += ring[k][0] * ring[k + 1][1] - ring[k + 1][0] * ring[k][1];
  }
  return sum / 2;
}

function besideHole(ring) {
  const [[x, y], [nextX, nextY]] = ring;
  const [dx, dy] = [Math.sign(nextX - x), Math.sign(nextY - y)];
  return [x + 0.5 * dx - 0.5 * dy, y + 0.5 * dy + 0.5 * dx];
}

function contains(ring, [x, y]) {
  let odd = false;
  for (let k = 0; k + 1 < ring.length; k++) {
    const [[ax, ay], [bx, by]] = [ring[k], ring[k + 1]];
    if (ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) odd = !odd;
  }
  return odd;
}

/** A gray PNG of 16 bits; labels beyond 65,535 begin again at 1. */
export async function png({ labels, width, height }) {
  const rows = new Uint8Array(height * (1 + 2 * width));
  for (let y = 0, at = 0; y < height; y++) {
    rows[at++] = 0; // This row is not filtered.
    for (let x = 0; x < width; x++) {
      const label = labels[y * width + x];
      const value = label > 0 ? 1 + ((label - 1) % 65535) : 0;
      rows[at++] = value >> 8;
      rows[at++] = value & 255;
    }
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([16, 0, 0, 0, 0], 8); // Bits; gray; the only compression, filters and order.
  return new Blob([
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    chunk("IHDR", header),
    chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    chunk("IEND", new Uint8Array(0)),
  ], { type: "image/png" });
}

function chunk(name, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(content, 8);
  let sum = ~0;
  for (const byte of bytes.subarray(4, content.length + 8)) {
    sum ^= byte;
    for (let k = 0; k < 8; k++) sum = (sum >>> 1) ^ (0xedb88320 & -(sum & 1));
  }
  view.setUint32(content.length + 8, ~sum >>> 0);
  return bytes;
}
