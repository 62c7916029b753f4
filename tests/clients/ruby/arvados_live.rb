# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0

# Follow an Arvados project, or a container's log file, with a native NATS connection.
#
#   ruby arvados_live.rb events PROJECT_UUID       one JSON line for each change, each once
#   ruby arvados_live.rb log CONTAINER_UUID FILE   the bytes of the file, each once
#
# Needs nats-pure 2.5. Reads NATS_URL and ARVADOS_API_TOKEN; or ARVADOS_API_TOKEN_FILE, anew for each
# connection, and ARVADOS_USER_UUID, so that a token is renewed without a new start. What happens to
# the connection is said on standard error.

require "json"
require "set"
require "nats"

RECONCILE_SECONDS = Float(ENV.fetch("RECONCILE_SECONDS", "60"))
AGAIN_SECONDS = 2 # until history is asked again that was not answered
WAITING = 10_000 # live messages that may wait for a slow handler

def say(text)
  warn "* #{text}"
end

# Why a request has no answer.
class NotAnswered < StandardError
  attr_reader :temporary

  def initialize(text, temporary)
    super(text)
    @temporary = temporary
  end
end

# The token that holds now: v2/<uuid>/<secret>. The library writes it down whenever it connects anew.
class Token
  def to_s
    file = ENV["ARVADOS_API_TOKEN_FILE"]
    file ? File.read(file).strip : ENV.fetch("ARVADOS_API_TOKEN")
  end
end

# Two connections that come back for as long as the program runs: one listens, one asks. Who listens
# may publish nothing, and who asks hears nothing but answers, so nobody can have the services'
# answers heard as events.
class Connection
  # Live messages in order; nil when history has to be read.
  attr_reader :messages

  # Connect. Answers come to an inbox named by the user, whose name stays, or else by the token.
  def initialize(url)
    @messages = Queue.new
    @subjects = {}
    @options = {
      auth_token: Token.new,
      connect_timeout: 5, # the server takes 2 s when nobody can judge the token
      max_reconnect_attempts: -1,
      reconnect_time_wait: 1 + rand * 2,
      ping_interval: 5, # a line that fell silent is given up after 15 s
    }
    named = ENV["ARVADOS_USER_UUID"] || Token.new.to_s.split("/")[1]
    abort "* not a token of the form v2/<uuid>/<secret>" unless named
    @nats = open(servers: [url]) do |client|
      client.on_error { |error| failed(error) }
      client.on_disconnect { say "disconnected" }
      client.on_reconnect { back }
    end
    # nats-pure takes a user name from the address alone, and a token beside it.
    asks = { servers: [url.sub("://", "://api:-@")], custom_inbox_prefix: "_INBOX_#{named}" }
    @asking = open(**asks) do |client|
      client.on_error { |error| say "asking: #{error}" }
      client.on_reconnect { @messages << nil } # a question may have been lost
    end
    say "connected"
  end

  # Put what comes live into `messages`.
  def listen(subject)
    @subjects[subject] = @nats.subscribe(subject) { |message| take(message) }
    @nats.flush # from here on nothing is missed
  end

  # Whether the server does not let us subscribe. nats-pure takes a refused subscription for the
  # end of the connection and would send it again and again, so it is sent again only when it is
  # among what we may do.
  def denied?
    @nats.flush
    refused = @subjects.select { |_, subscription| subscription.nil? }.keys
    refused.each { |subject| listen(subject) if allowed?(subject) }
    @subjects.value?(nil)
  rescue NATS::Timeout
    true # not connected
  end

  # The messages of one answer.
  def ask(subject, request)
    inbox = @asking.new_inbox
    answers = @asking.subscribe(inbox)
    @asking.publish(subject, JSON.generate(request), inbox)
    loop do
      message = answers.next_msg(timeout: 10)
      header = message.header || {}
      raise NotAnswered.new("nobody answers", true) if header["Status"] == "503"

      if header.key?("Arvados-Error")
        found = JSON.parse(message.data)
        raise NotAnswered.new(found["error"], found["temporary"])
      end
      yield header, message.data
      break if header.key?("Arvados-End")
    end
  rescue NATS::Timeout
    raise NotAnswered.new("the answer does not come", true)
  ensure
    answers.unsubscribe if answers && !answers.closed
  end

  # The next live message, or nil after so many seconds.
  def next(seconds)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
    loop do
      return @messages.pop(true) unless @messages.empty?
      return nil if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

      sleep 0.02
    end
  end

  private

  def take(message)
    if @messages.size >= WAITING # history tells what is not taken in time
      @messages.clear
      message = nil
    end
    @messages << message
  end

  def open(**options)
    client = NATS::IO::Client.new
    yield client
    client.connect(@options.merge(options))
    client
  rescue NATS::IO::Error => error
    failed(error)
    client.close
    sleep 1 + rand * 3
    retry
  end

  def failed(error)
    text = error.to_s
    if (match = text.match(/Permissions Violation for Subscription to "([^"]+)"/i))
      say "denied"
      @subjects[match[1]]&.unsubscribe
      @subjects[match[1]] = nil
    else
      say text.match?(/authorization/i) ? "refused" : "error: #{text}"
    end
  end

  def back
    say "connected"
    @messages << nil
  end

  def allowed?(subject)
    patterns = []
    ask("arvados.api.whoami", {}) do |header, data|
      patterns = JSON.parse(data)["subscribe"] unless header.key?("Arvados-End")
    end
    patterns.any? { |pattern| covers?(pattern.split("."), subject.split(".")) }
  rescue NotAnswered
    false
  end

  def covers?(pattern, subject)
    pattern.each_with_index do |token, place|
      return place < subject.size if token == ">"
      return false unless token == "*" || token == subject[place]
    end
    pattern.size == subject.size
  end
end

# What happens in a project, each event once, over every interruption; in order, but for what was
# lost on its way: history tells that later.
class Events
  def initialize(project)
    @project = project
    @place = { begin: "now" } # or "oldest", for all that is kept; later a cursor
    @told = 0 # history has told everything up to this sequence
    @ahead = Set.new # sequences above it that were told, most of them live
  end

  # Tell all events from now on.
  def follow(connection, &tell)
    connection.listen("arvados.live.#{@project}.#{@project}.*.event.>")
    due = now
    loop do
      if now >= due # live messages can be lost: ask now and then, however many come
        # What we may not see now is told when we may again.
        answered = connection.denied? || catch_up(connection, &tell)
        due = now + (answered ? (0.8 + 0.4 * rand) * RECONCILE_SECONDS : (0.5 + 0.5 * rand) * AGAIN_SECONDS)
      end
      message = connection.next(due - now)
      due = now if message.nil?
      new(message.header, message.data, &tell) if message
    end
  end

  private

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # Tell the event in a message if it was not told before, and is one that we know; whether it was.
  def new(header, data)
    sequence = Integer((header || {}).fetch("Nats-Sequence"))
    event = JSON.parse(data)
    # A container in two requests comes twice, and so may all after a restart.
    return false unless sequence > @told && @ahead.add?(sequence)

    yield event
    true
  rescue KeyError, ArgumentError, JSON::ParserError => error
    say "left out: #{error}"
    false
  end

  # Whether history was told up to now.
  def catch_up(connection, &tell)
    more = true
    more = history(connection, &tell) while more
    say "caught up"
    true
  rescue NotAnswered => error
    say "history: #{error}"
    false
  end

  # A page of the events that did not come live; whether there are more.
  def history(connection, &tell)
    more = false
    request = { owners: [@project], limit: 1000, **@place }
    connection.ask("arvados.api.events", request) do |header, data|
      if header.key?("Arvados-Gap")
        say "gap: #{header['Arvados-Gap']}"
        @told = 0
        @ahead.clear
      elsif header.key?("Arvados-End")
        @place = { cursor: header["Arvados-End"] }
        @told = header["Nats-Sequence"].to_i
        @ahead.delete_if { |one| one <= @told }
        more = header["Arvados-More"] == "true"
      elsif new(header, data, &tell)
        @place = { cursor: header["Arvados-Cursor"] }
      end
    end
    more
  end
end

# The bytes of one log file of a container, each once and in order.
class Log
  def initialize(uuid, file)
    @uuid = uuid
    @file = file
    @offset = 0
    @epoch = nil # how often the file began anew, once an answer or a live message has said it
    @gap = false # what comes next in an answer may begin behind our place
    @ended = false
  end

  # Tell all bytes, until the container has ended.
  def follow(connection, &tell)
    due = true
    until @ended
      catch_up(connection, &tell) if due
      break if @ended

      message = connection.next(RECONCILE_SECONDS / 4)
      due = message.nil? || !live(message, &tell)
    end
  end

  private

  # Hear the file as it grows; the answer says where. `end` tells when it is over.
  def listen(connection)
    subject = nil
    connection.ask("arvados.api.logs", { uuid: @uuid, file: @file }) do |header, _|
      subject = header["Arvados-Live"] || subject
    end
    return true unless subject

    connection.listen(subject)
    connection.listen("#{subject.rpartition('.').first}.end")
    true
  end

  def catch_up(connection, &tell)
    @listens ||= listen(connection)
    more = true
    more = history(connection, &tell) while more
  rescue NotAnswered => error
    raise unless error.temporary

    say "history: #{error}"
  end

  # Bytes that the stream has from our place on; whether there are more.
  def history(connection, &tell)
    more = @gap = false
    request = { uuid: @uuid, file: @file, offset: @offset, epoch: @epoch }
    connection.ask("arvados.api.logs", request) do |header, data|
      if header.key?("Arvados-Gap") # GET Arvados-Log-Path of Arvados' API with `Range`
        say "gap: bytes #{header['Arvados-Gap']} of #{header['Arvados-Log-Path']}"
        @gap = true
        next
      end
      raise NotAnswered.new("a part of the answer is missing", true) unless new(header, data, asked: true, &tell)

      more = header["Arvados-More"] == "true"
      @ended = header["Arvados-Ended"] == "true"
    end
    more
  end

  # Tell the bytes of a message that are new; false if others have to come before them.
  def new(header, data, asked: false)
    offset = Integer(header["Arvados-End"] || header.fetch("Arvados-Offset"))
    epoch = Integer(header.fetch("Arvados-Epoch"))
    ours = @epoch || 0
    behind = epoch > ours || (epoch == ours && offset > @offset)
    return false if behind && !(asked && (@gap || epoch > ours))

    @offset, @epoch = offset, epoch if behind || @epoch.nil?
    @gap = false
    data = epoch == @epoch && data.byteslice(@offset - offset..)
    if data && !data.empty?
      @offset += data.bytesize
      yield data
    end
    true
  rescue KeyError, ArgumentError => error
    say "left out: #{error}"
    true
  end

  # Tell the new bytes of a live message; false if history has to tell what is before them.
  def live(message, &tell)
    header, container = message.header || {}, message.subject.split(".")[-2]
    if !header.key?("Nats-Sequence") || header.fetch("Arvados-Container", container) != container
      say "left out: #{message.subject}"
      return true
    end
    !header.key?("Arvados-End") && new(header, message.data, &tell) # history says when we have all
  end
end

what, *rest = ARGV
$stdout.sync = true
$stdout.binmode
followed = what == "events" ? Events.new(*rest) : Log.new(*rest)
connection = Connection.new(ENV.fetch("NATS_URL"))
followed.follow(connection) do |found|
  found.is_a?(String) ? $stdout.write(found) : $stdout.puts(JSON.generate(found))
end
