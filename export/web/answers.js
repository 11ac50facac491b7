// How the outputs of a classifier are read.

/** The probability of every class, as `Answers.probabilities` in images/answers.py. */
export function probabilitiesOf(scores, activation) {
  if (scores.length === 1) {
    const [score] = scores;
    const positive = activation === "linear" ? 1 / (1 + Math.exp(-score)) : score;
    return [1 - positive, positive]; // one output tells two classes apart
  }
  return activation === "linear" ? softmax(scores) : scores;
}

function softmax(scores) {
  const largest = Math.max(...scores);
  const exponentials = scores.map((score) => Math.exp(score - largest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}
