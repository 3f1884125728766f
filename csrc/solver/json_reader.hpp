// Checked values of a JSON document that may be hostile.
#pragma once

#include <nlohmann/json_fwd.hpp>  // the whole takes seconds to compile: for the sources that read values
#include <string>
#include <string_view>

namespace mfik {

using Json = nlohmann::json;

/// Reads values of a document; `where` is the element's name in messages. Every refusal throws Error, which names file,
/// element, expectation, value and remedy.
class JsonReader {
  public:
    static constexpr char kExportAgain[] = "export the bundle again with scripts/export.py";
    static constexpr char kUpdate[] = "update mfik to a version that reads it";

    /// @param[in] source  Of the document, for messages: the file.
    explicit JsonReader(std::string source) : source_(std::move(source)) {}

    [[noreturn]] void fail(const std::string& where, const std::string& expected, const std::string& got,
                           const std::string& remedy = kExportAgain) const;

    /// A JSON object of bounded depth, each key once.
    Json parse(std::string_view text, const std::string& where) const;

    const Json& member(const Json& object, const char* key, const std::string& where) const;
    std::string string(const Json& object, const char* key, const std::string& where) const;
    int integer(const Json& object, const char* key, const std::string& where, int low, int high) const;
    double number(const Json& value, const std::string& where) const;  ///< Finite.
    /// A rigid transform of 12 numbers, 3x4 row-major.
    void transform(const Json& value, const std::string& where, double* out) const;

    /// Text from the document for a message: cut, quoted and printable.
    static std::string quote(std::string_view text);
    static std::string excerpt(const Json& value);

  private:
    std::string source_;
};

}  // namespace mfik
