// What the npm package hdr-histogram-js finds in the logs named on the command line, as JSON on stdout: by tag, all
// intervals added. `--corrected NANOSECONDS` comes first where its correction for coordinated omission is wanted too.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.HDR_JS + "/");
const { HistogramLogReader, build } = require("hdr-histogram-js");

const GEOMETRY = {
  lowestDiscernibleValue: 1,
  highestTrackableValue: 60_000_000_000,
  numberOfSignificantValueDigits: 3,
  bitBucketSize: 64,
  useWebAssembly: false,
};
const PERCENTILES = [0, 50, 75, 90, 99, 99.9, 99.99, 100];

const figures = (histogram) => ({
  total: histogram.totalCount,
  max: histogram.maxValue,
  percentiles: PERCENTILES.map((percentile) => histogram.getValueAtPercentile(percentile)),
  counts: recorded(histogram),
});

const recorded = (histogram) => {
  const found = [];
  const iterator = histogram.recordedValuesIterator;
  iterator.reset();
  while (iterator.hasNext()) {
    const step = iterator.next();
    found.push([histogram.highestEquivalentValue(step.valueIteratedTo), step.countAtValueIteratedTo]);
  }
  return found;
};

const files = process.argv.slice(2);
const interval = files[0] === "--corrected" ? Number(files.splice(0, 2)[1]) : 0;
const answer = files.map((file) => {
  const reader = new HistogramLogReader(readFileSync(file, "utf8"), 64, false);
  const sums = {};
  const starts = [];
  for (let found = reader.nextIntervalHistogram(); found; found = reader.nextIntervalHistogram()) {
    sums[found.tag] ??= build(GEOMETRY);
    sums[found.tag].add(found);
    starts.push(found.startTimeStampMsec);
  }
  const tags = {};
  for (const [tag, sum] of Object.entries(sums)) {
    tags[tag] = figures(sum);
    if (interval) tags[tag].corrected = recorded(sum.copyCorrectedForCoordinatedOmission(interval));
  }
  return { tags, intervals: starts.length, starts };
});
process.stdout.write(JSON.stringify(answer));
