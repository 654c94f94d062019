/** What is searched for: kept while the search is not looked at. */
class Searching {
  text = $state("");
  include = $state("");
  /** Counts the times it was asked for. */
  turn = $state(0);
}

export const searching = new Searching();
