"""One quantiser per runtime, each by that runtime's own tool."""
