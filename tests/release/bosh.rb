# What bosh does with manifests and job templates, as far as the tests need it, since no package registry has the bosh
# CLI. Written after the behaviour of its go-patch, of `bosh interpolate` and of the ERB context of job templates.
#
#   bosh.rb interpolate MANIFEST [-o OPS_FILE]... [-l VARS_FILE]...   the manifest as JSON
#   bosh.rb path FILE PATH                                           one value, as `bosh int FILE --path PATH` prints it
#   bosh.rb render JOB_DIRECTORY PROPERTIES_JSON OUT_DIRECTORY       the job's templates, rendered
#   bosh.rb release DIRECTORY                                        what `bosh create-release` would take along, as JSON
require "erb"
require "fileutils"
require "json"
require "yaml"

def load_yaml(path)
  YAML.safe_load(File.read(path), aliases: true, filename: path)
end

# Ops files: https://bosh.io/docs/cli-ops-files/
class Operation
  Token = Struct.new(:kind, :value, :key, :optional)

  def initialize(operation, source)
    @type, @path, @value = operation.values_at("type", "path", "value")
    @where = "#{source}: #{@type} #{@path}"
    surplus = operation.keys - %w[type path value name release]
    raise "#{@where}: unknown keys #{surplus.join(", ")}" unless surplus.empty?
    raise "#{@where}: no such type" unless %w[replace remove].include?(@type)
    raise "#{@where}: paths begin with /" unless @path.start_with?("/")
    @tokens = tokens
  end

  def apply(document)
    node = document
    @tokens[0..-2].each_with_index { |token, i| node = descend(node, token, @tokens[i + 1]) }
    @type == "replace" ? replace(node, @tokens.last) : remove(node, @tokens.last)
  end

  private

  # `?` holds for its own token and for all hash keys and matches after it.
  def tokens
    optional = false
    @path[1..].split("/", -1).map do |text|
      optional = true if text.end_with?("?")
      text = text.chomp("?")
      case text
      when "-" then Token.new(:after_last)
      when /\A-?\d+\z/ then Token.new(:index, text.to_i)
      when /=/ then Token.new(:match, *text.split("=", 2).reverse.map { |part| unescape(part) }, optional)
      else Token.new(:key, unescape(text), nil, optional)
      end
    end
  end

  def unescape(text)
    text.gsub("~7", ":").gsub("~3", "=").gsub("~2", "?").gsub("~1", "/").gsub("~0", "~")
  end

  def descend(node, token, following)
    place = find(node, token)
    return node[place] unless place.nil?
    raise "#{@where}: there is no #{token.value}" unless token.optional && @type == "replace"

    fresh = %i[after_last match].include?(following.kind) ? [] : {}
    if token.kind == :match
      fresh = { token.key => token.value }
      node << fresh
    else
      node[token.value] = fresh
    end
    fresh
  end

  # The key or index under which `token` is in `node`; nil when it is not.
  def find(node, token)
    wanted = token.kind == :key ? Hash : Array
    raise "#{@where}: expected a #{wanted} to look for #{token.value} in" unless node.is_a?(wanted)

    case token.kind
    when :key then node.key?(token.value) ? token.value : nil
    when :index
      raise "#{@where}: there is no index #{token.value}" unless token.value.abs < node.size
      token.value
    when :match
      places = node.each_index.select { |i| node[i].is_a?(Hash) && node[i][token.key] == token.value }
      raise "#{@where}: #{places.size} items have #{token.key}=#{token.value}" if places.size > 1
      places.first
    end
  end

  def replace(node, token)
    # As go-patch does: what a later operation changes here must not change there.
    value = Marshal.load(Marshal.dump(@value))
    return node << value if token.kind == :after_last

    place = find(node, token)
    if place.nil?
      raise "#{@where}: there is no #{token.value}" unless token.optional
      return node << value if token.kind == :match
      place = token.value
    end
    node[place] = value
  end

  def remove(node, token)
    place = find(node, token)
    raise "#{@where}: there is no #{token.value}" if place.nil? && !token.optional
    return if place.nil?
    node.is_a?(Hash) ? node.delete(place) : node.delete_at(place)
  end
end

# Variables: https://bosh.io/docs/cli-int/
class Variables
  PLACEHOLDER = %r{\(\(!?([-/.\w]+)\)\)}

  def initialize(files, manifest)
    @values = files.map { |file| load_yaml(file) || {} }.reduce({}, :merge)
    @missing = []
    generate(manifest["variables"] || [])
  end

  def interpolate(node)
    case node
    when Hash then node.to_h { |key, value| [interpolate(key), interpolate(value)] }
    when Array then node.map { |item| interpolate(item) }
    when String then text(node)
    else node
    end
  end

  def check_all_found
    raise "Expected to find variables: #{@missing.uniq.sort.join(", ")}" unless @missing.empty?
  end

  private

  # What `--vars-store` generates, as far as its shape goes.
  def generate(variables)
    variables.each do |variable|
      name = variable["name"]
      @values[name] ||=
        case variable["type"]
        when "password" then "generated-#{name}"
        when "certificate" then %w[ca certificate private_key].to_h { |part| [part, "-----BEGIN #{part} of #{name}-----\n"] }
        when "ssh" then { "private_key" => "generated", "public_key" => "ssh-rsa AAAA #{name}", "public_key_fingerprint" => "00:11" }
        when "rsa" then { "private_key" => "generated", "public_key" => "generated" }
        else raise "variable #{name}: no such type: #{variable["type"]}"
        end
    end
  end

  # A value that is nothing but a variable takes on its type; within other text it must be a scalar.
  def text(string)
    whole = string.match(/\A#{PLACEHOLDER}\z/)
    return lookup(whole[1]) { string } if whole

    string.gsub(PLACEHOLDER) do |placeholder|
      value = lookup($1) { placeholder }
      raise "#{placeholder} within a string is a #{value.class}" if value.is_a?(Hash) || value.is_a?(Array)
      value.to_s
    end
  end

  def lookup(name)
    value = name.split(".").reduce(@values) { |at, part| at.is_a?(Hash) && at.key?(part) ? at[part] : break }
    return value unless value.nil?
    @missing << name
    yield
  end
end

# What a job's templates see: https://bosh.io/docs/job-templates/
class TemplateContext
  class Else
    def initialize(active)
      @active = active
    end

    def else
      yield if @active
    end
  end

  attr_reader :name, :index, :properties, :spec

  # Only what the job's spec declares gets through, each with its default.
  def initialize(job, properties)
    @name, @index = "bosh", 0
    @properties = {}
    @spec = {}
    job["properties"].each do |path, definition|
      keys = path.split(".")
      given = keys.reduce(properties) { |at, key| at.is_a?(Hash) ? at[key] : break }
      at = keys[0..-2].reduce(@properties) { |node, key| node[key] ||= {} }
      at[keys.last] = given.nil? ? definition["default"] : given
    end
  end

  def p(*arguments)
    names = Array(arguments[0])
    names.each do |name|
      value = lookup(name)
      return value unless value.nil?
    end
    return arguments[1] if arguments.length == 2
    raise "Can't find property '#{names.join("', or '")}'"
  end

  def if_p(*names)
    values = names.map { |name| lookup(name) }
    return Else.new(true) if values.any?(&:nil?)
    yield(*values)
    Else.new(false)
  end

  def link(name)
    raise "Can't find link '#{name}'"
  end

  def if_link(_name)
    Else.new(true)
  end

  def get_binding
    binding
  end

  private

  def lookup(name)
    name.split(".").reduce(@properties) { |at, key| at.is_a?(Hash) ? at[key] : break }
  end
end

def interpolate(arguments)
  manifest = load_yaml(arguments.shift)
  ops, files = [], []
  until arguments.empty?
    option, path = arguments.shift(2)
    { "-o" => ops, "-l" => files }.fetch(option) << path
  end
  ops.each { |file| load_yaml(file).each { |operation| Operation.new(operation, file).apply(manifest) } }
  variables = Variables.new(files, manifest)
  result = variables.interpolate(manifest)
  variables.check_all_found
  puts JSON.generate(result)
end

def path(file, path)
  value = path.split("/").drop(1).reduce(load_yaml(file)) { |at, key| at.fetch(key) }
  puts value.is_a?(String) ? value : YAML.dump(value).delete_prefix("---\n")
end

def render(directory, properties, out)
  job = load_yaml(File.join(directory, "spec"))
  context = TemplateContext.new(job, JSON.parse(File.read(properties)))
  job["templates"].each do |source, target|
    source = File.join(directory, "templates", source)
    target = File.join(out, target)
    template = ERB.new(File.read(source), trim_mode: "-")
    template.filename = source
    FileUtils.mkdir_p(File.dirname(target))
    File.write(target, template.result(context.get_binding))
    # The agent makes what is in bin executable, and keeps the rest to itself.
    File.chmod(File.dirname(target).end_with?("/bin") ? 0o750 : 0o640, target)
  end
end

# The files of a package: those that its globs match in src, then those in blobs.
def package_files(root, spec)
  spec.fetch("files").flat_map do |glob|
    found = %w[src blobs].flat_map do |place|
      Dir.glob(glob, base: File.join(root, place)).select { |path| File.file?(File.join(root, place, path)) }
    end
    raise "Missing files for pattern '#{glob}'" if found.empty?
    found
  end.uniq.sort
end

def release(root)
  name = load_yaml(File.join(root, "config/final.yml")).fetch("name")
  raise "config/blobs.yml is no hash" unless load_yaml(File.join(root, "config/blobs.yml")).is_a?(Hash)
  packages = Dir[File.join(root, "packages/*")].to_h do |directory|
    spec = load_yaml(File.join(directory, "spec"))
    raise "#{directory} is not named as its package" unless spec.fetch("name") == File.basename(directory)
    raise "Expected to find #{directory}/packaging" unless File.file?(File.join(directory, "packaging"))
    [spec["name"], package_files(root, spec)]
  end
  jobs = Dir[File.join(root, "jobs/*")].to_h do |directory|
    spec = load_yaml(File.join(directory, "spec"))
    raise "#{directory} is not named as its job" unless spec.fetch("name") == File.basename(directory)
    files = ["monit"] + spec.fetch("templates").keys.map { |source| "templates/#{source}" }
    files.each { |file| raise "Expected to find #{directory}/#{file}" unless File.file?(File.join(directory, file)) }
    unknown = spec.fetch("packages") - packages.keys
    raise "#{directory}: no such packages: #{unknown.join(", ")}" unless unknown.empty?
    [spec["name"], files]
  end
  puts JSON.generate("name" => name, "packages" => packages, "jobs" => jobs)
end

begin
  command = ARGV.shift
  case command
  when "interpolate" then interpolate(ARGV)
  when "path" then path(*ARGV)
  when "render" then render(*ARGV)
  when "release" then release(*ARGV)
  else raise "no such command: #{command}"
  end
rescue => error
  abort error.message
end
