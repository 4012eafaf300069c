// The hook is being built.
export function useSSE() {}
