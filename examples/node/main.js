// Asks for one rating and for recommendations: node main.js --user 1 --movie 50
import { parseArgs } from 'node:util';

import { describe, toLines } from './errors.js';
import { connect } from './marquee.js';

const { values: options } = parseArgs({
  options: {
    address: { type: 'string', default: 'localhost:50052' },
    user: { type: 'string', default: '1' },
    movie: { type: 'string', default: '1' },
    k: { type: 'string', default: '10' },
    genre: { type: 'string', multiple: true, default: [] },
    'timeout-ms': { type: 'string', default: '2000' },
  },
});
const timeoutMs = Number(options['timeout-ms']);
const user = { userId: options.user };
const model = connect(options.address);

try {
  const predicted = await model.predictRating({ user, movieId: options.movie }, timeoutMs);
  console.log(`user ${options.user} would give movie ${options.movie} ${predicted.rating.toFixed(2)} stars`);

  const top = await model.topK(
    { user, k: Number(options.k), view: 'MOVIE_VIEW_MOVIE', filter: { genresAny: options.genre } },
    timeoutMs,
  );
  console.log(`model ${top.modelVersion}, answered from ${top.source}`);
  top.movies.forEach(({ movieId, movie, predictedRating }, rank) => {
    const stars = predictedRating === undefined ? '' : `, ${predictedRating.toFixed(2)} stars`;
    console.log(`${rank + 1}. ${movie?.title ?? movieId} (${movie?.year ?? 'year unknown'})${stars}`);
  });
} catch (error) {
  if (error.code === undefined) throw error;
  console.error(toLines(describe(error)).join('\n'));
  process.exitCode = 1;
} finally {
  model.close();
}
