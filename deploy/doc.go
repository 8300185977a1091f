// Package deploy is nothing but tests: that the dashboard, the alert rules and the docs
// name metrics that exist, that a real Prometheus answers what they ask, that links between
// pages lead somewhere, and that what pages show of Go is run.
package deploy
