/** Whose key it is. */

/** Whether somebody types into a terminal. */
export const inTerminal = (event: KeyboardEvent): boolean =>
  event.target instanceof Element && event.target.closest(".screen") !== null;

/** What emulators type by themselves, to answer what a program has asked: no key gives these. */
// eslint-disable-next-line no-control-regex
const ANSWER = /^\x1b(?:\[[?>=][\d;]*c|\[\d+n|\[\??\d+;\d+R|\[\??[\d;]+\$y|\[[\d;]+t|\[\?\d+u|[P\]][^]*)$/;
/** Shifted F3 looks like the place of a cursor in the first line. */
// eslint-disable-next-line no-control-regex
const KEY = /^\x1b\[1;\dR$/;

export const isAnswer = (data: string): boolean => ANSWER.test(data) && !KEY.test(data);
