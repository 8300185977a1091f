// Package deploy is nothing but tests: that the dashboard, the alert rules and the docs
// beside it name metrics that exist, and that a real Prometheus answers what they ask.
package deploy
