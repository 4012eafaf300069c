// The page loads this script before its body. The server answers with this file, which does nothing: the tabs
// of the six example uses stay hidden. `tiny-sse demo` has these uses and answers `/demo.js` with a script that
// shows their tabs.
