// The client is being built.
export class SSEClient {}
