// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

// Follow an Arvados project, or a container's log file, with a native NATS connection.
//
//	live events PROJECT_UUID       one JSON line for each change, each once
//	live log CONTAINER_UUID FILE   the bytes of the file, each once
//	live queue                     a dispatcher's decisions, with an administrator's token
//	live dispatch COMMAND …        a dispatcher: runs the command with the uuid of each container
//	                               that it locks, SLOTS at a time; ARVADOS_API is the address to ask
//
// Reads NATS_URL and ARVADOS_API_TOKEN; or ARVADOS_API_TOKEN_FILE, anew for each connection, and
// ARVADOS_USER_UUID, so that a token is renewed without a new start. What happens to the connection is
// said on standard error.
package main

import (
	"log"
	"os"
	"strconv"
	"time"
)

func main() {
	log.SetFlags(0)
	connection, err := Open(os.Getenv("NATS_URL"))
	if err == nil {
		err = run(connection, os.Args[1:])
	}
	if err != nil {
		log.Fatal("* ", err)
	}
}

func run(c *Connection, args []string) error {
	reconcile := 60.0
	if text := os.Getenv("RECONCILE_SECONDS"); text != "" {
		reconcile, _ = strconv.ParseFloat(text, 64)
	}
	every := time.Duration(reconcile * float64(time.Second))
	switch {
	case len(args) == 2 && args[0] == "events":
		events := Events{Project: args[1]}
		return events.Follow(c, every, func(event []byte) { os.Stdout.Write(append(event, '\n')) })
	case len(args) == 3 && args[0] == "log":
		file := Log{UUID: args[1], File: args[2]}
		return file.Follow(c, every, func(data []byte) { os.Stdout.Write(data) })
	case len(args) == 1 && args[0] == "queue":
		queue := Queue{}
		return queue.Follow(c, every, func(line []byte) { os.Stdout.Write(append(line, '\n')) })
	case len(args) > 1 && args[0] == "dispatch":
		slots, _ := strconv.Atoi(os.Getenv("SLOTS"))
		dispatcher := Dispatcher{Command: args[1:], Slots: max(slots, 1)}
		return dispatcher.Follow(c, os.Getenv("ARVADOS_API"), every)
	}
	log.Fatal("usage: live events PROJECT_UUID | log CONTAINER_UUID FILE | queue | dispatch COMMAND …")
	return nil
}
